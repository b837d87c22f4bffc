//! `er-dev explain`: what a path is, why, which routine it belongs to, and whether an entry could go up now.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::cli::{self, Common};
use crate::config::{Build, Config, Pattern, Routine};
use crate::report::class::Class;
use crate::report::json::line;
use crate::report::standing::Routine as Standing;
use crate::report::text::{self, BAD, CARE, GOOD, NEWS};
use crate::report::words::{escape, size};
use crate::report::{Format, Look, Problem, Report};
use crate::routine::RoutineName;
use crate::watch::explain::{Explanation, Kind, NOT_WATCHED, Real, explain};
use crate::watch::select::{Origin, Rule, Verdict};
use crate::watch::source::{self, Demands};

use super::{Failure, context, daemons, load, problem};

/// How long a running watch may take to say how it notices changes.
const PATIENCE: Duration = Duration::from_millis(500);

/// Explains every path.
pub(super) async fn run(
    common: &Common,
    flags: cli::Explain,
    report: &mut Report,
) -> Result<u8, Failure> {
    let config = load(common)?;
    let here = std::env::current_dir().map_err(Failure::other)?;
    let targets: Vec<_> = config.routines.iter().map(context::target).collect();
    let explained = explain(
        &targets,
        &context::inputs(&config, config.builds()),
        &config.globs,
        &config.watch,
        &flags.paths,
        &here,
    )
    .map_err(|error| Failure::new(Class::Config, error.to_string()))?;
    let running = running(common).await;
    let as_json = flags.json || common.format == Format::Json;
    for (index, (given, explained)) in flags.paths.iter().zip(&explained).enumerate() {
        let page = Page {
            config: &config,
            here: &here,
            given,
            explained,
            entries: entries(&config, &explained.verdict),
            backend: backend(explained, &running),
        };
        if as_json {
            report.print(&line(&page.object()));
        } else {
            let space = if index > 0 { "\n" } else { "" };
            report.print(&format!("{space}{}", page.block(report.look())));
        }
    }
    Ok(0)
}

/// A routine whose entry the path is, and the size of its code or why that cannot go up.
type Entry<'a> = (&'a Routine, Result<usize, Problem>);

fn entries<'a>(config: &'a Config, verdict: &Verdict) -> Vec<Entry<'a>> {
    let Verdict::Entry { routines, .. } = verdict else {
        return Vec::new();
    };
    let entry = |routine: &'a Routine| {
        let demands = Demands {
            service: config.service.kind,
            secrets: false,
        };
        let code = source::examine(&context::target(routine), demands);
        let code = code.map(|source| source.code.bytes().len());
        let code = code.map_err(|error| problem::of_source(&error, &routine.shown));
        (routine, code)
    };
    let all = config.routines.iter();
    let named = all.filter(|routine| routines.contains(&routine.name));
    named.map(entry).collect()
}

/// All that is told of one path.
struct Page<'a> {
    config: &'a Config,
    here: &'a Path,
    given: &'a Path,
    explained: &'a Explanation,
    entries: Vec<Entry<'a>>,
    /// How changes there are noticed, and why so, if a running watch said that.
    backend: (&'a str, Option<&'a str>),
}

/// How the running watches of the configuration stand. They need not be there, nor answer.
async fn running(common: &Common) -> Vec<Standing> {
    let daemons = daemons::find(common, PATIENCE).await;
    let list = daemons.map(|daemons| daemons.list).unwrap_or_default();
    let statuses = list.into_iter().filter_map(|daemon| daemon.status.ok());
    statuses.flat_map(|status| status.routines).collect()
}

/// How changes of a path are noticed: as the running watch of its routine says, else as one would that starts now.
fn backend<'a>(explained: &'a Explanation, running: &'a [Standing]) -> (&'a str, Option<&'a str>) {
    let names = &explained.routines;
    let own = |one: &&Standing| names.iter().any(|name| name.as_str() == one.routine);
    let said = running.iter().find(own);
    match said.and_then(|one| Some((one.backend.as_deref()?, one.backend_why.as_deref()))) {
        Some(said) if explained.backend != NOT_WATCHED => said,
        _ => (explained.backend, None),
    }
}

impl Page<'_> {
    fn block(&self, look: Look) -> String {
        let explained = self.explained;
        let given = escape(&self.given.to_string_lossy());
        let mut out = text::paint(&given, anstyle::Style::new().bold(), look);
        match explained.kind {
            None => out.push_str(" (does not exist)"),
            Some(Kind::File) => {}
            Some(kind) => out.push_str(&format!(" ({})", kind.words())),
        }
        out.push('\n');
        let mut tell = |label, style, words: &str| {
            out.push_str(&text::fact(label, style, words, look));
        };
        let reason = self.reason();
        match &explained.verdict {
            Verdict::Entry { .. } => tell("Entry", GOOD, &reason),
            Verdict::Target(_) => tell("Target", GOOD, &reason),
            _ if !explained.inputs.is_empty() => {}
            Verdict::Ignored(_) => tell("Ignored", CARE, &reason),
            Verdict::Other { .. } => tell("Other", NEWS, &reason),
        }
        for (build, pattern) in &explained.inputs {
            tell("Input", GOOD, &self.input(*build, pattern));
        }
        for (build, of) in self.makers() {
            let (command, of) = (escape(&build.command), list(&of));
            tell("Made", NEWS, &format!("by `{command}` for {of}"));
        }
        if let Some(Real { path, kind }) = &explained.real {
            let kind = kind.map_or("which leads nowhere", Kind::words);
            tell("Leads", NEWS, &format!("to {}, {kind}", self.shown(path)));
        }
        for (routine, code) in &self.entries {
            let of = match self.entries.len() {
                1 => String::new(),
                _ => format!("{}: ", routine.name),
            };
            match code {
                Ok(bytes) => {
                    let size = size(*bytes as u64);
                    tell("Ready", GOOD, &format!("{of}{size}, could go up now"));
                }
                Err(problem) => {
                    let sentence = text::sentence(problem);
                    tell("Refused", BAD, &format!("{of}{sentence}"));
                    let help = escape(&problem.help);
                    tell("", NEWS, &format!("= help: {help}"));
                }
            }
        }
        let routines = list(&explained.routines);
        match routines.as_str() {
            "" => tell("Belongs", NEWS, "to no routine"),
            routines => tell("Belongs", NEWS, &format!("to {routines}")),
        }
        match self.backend {
            (by, None) => tell("Backend", NEWS, by),
            (by, Some(why)) => tell("Backend", NEWS, &format!("{by}: {}", escape(why))),
        }
        out
    }

    /// The builds that make the entry, if the path is one, each with its routines.
    fn makers(&self) -> Vec<(&Build, Vec<RoutineName>)> {
        let is_entry =
            |routine: &&Routine| self.entries.iter().any(|(it, _)| it.name == routine.name);
        let mut makers = Vec::new();
        for made in self.config.builds() {
            let of = made.routines.into_iter().filter(is_entry);
            let of: Vec<RoutineName> = of.map(|routine| routine.name.clone()).collect();
            if !of.is_empty() {
                makers.push((made.build, of));
            }
        }
        makers
    }

    fn input(&self, build: usize, pattern: &Pattern) -> String {
        let command = self
            .config
            .builds()
            .get(build)
            .map(|made| escape(&made.build.command));
        let command = command.unwrap_or_default();
        let config = self.shown(&self.config.file);
        let (text, line) = (escape(&pattern.text), pattern.line);
        format!(
            "of the build `{command}` by `{text}` in {config}:{line}: it runs when this changes"
        )
    }

    /// Why the verdict is what it is: what is said behind its name.
    fn reason(&self) -> String {
        if let (Verdict::Ignored(_) | Verdict::Other { .. }, [(build, pattern), ..]) =
            (&self.explained.verdict, &self.explained.inputs[..])
        {
            return self.input(*build, pattern);
        }
        let holds = list(&self.explained.holds);
        match &self.explained.verdict {
            Verdict::Entry { despite, .. } => {
                let config = self.shown(&self.config.file);
                let of = |(routine, _): &Entry<'_>| {
                    let glob = routine.glob.and_then(|glob| self.config.globs.get(glob));
                    let by = glob.map(|glob| format!(", by `{}`", escape(&glob.pattern.text)));
                    let by = by.unwrap_or_default();
                    format!("of {}{by} ({config}:{})", routine.name, routine.line)
                };
                let entries: Vec<String> = self.entries.iter().map(of).collect();
                let despite = despite
                    .as_ref()
                    .map(|rule| format!(", whatever {} says", self.rule(rule)));
                format!("{}{}", entries.join(" and "), despite.unwrap_or_default())
            }
            Verdict::Target(routines) => {
                let routines = list(routines);
                format!("of {routines}: the entry leads here, and goes up when this file changes")
            }
            Verdict::Ignored(rule) if holds.is_empty() => format!("by {}", self.rule(rule)),
            Verdict::Ignored(rule) => {
                let rule = self.rule(rule);
                format!("by {rule}; the entries in it count nevertheless: {holds}")
            }
            Verdict::Other { .. } if !holds.is_empty() => {
                format!("a directory never goes up; the entries in it do: {holds}")
            }
            Verdict::Other { .. } if !self.explained.fits.is_empty() => self.fitting(),
            Verdict::Other { kept } => {
                let why = self.why_not(kept.as_ref());
                format!("nothing happens when it changes, because {why}")
            }
        }
    }

    /// What is said of a path that fits patterns and is no entry: nothing is there, or several files have one name.
    fn fitting(&self) -> String {
        let config = self.shown(&self.config.file);
        let fit = self.explained.fits.iter();
        let fit = fit.filter_map(|&glob| self.config.globs.get(glob));
        let fit = fit.map(|glob| {
            let (text, line) = (escape(&glob.pattern.text), glob.pattern.line);
            let shown = self.explained.path.strip_prefix(glob.dir());
            let shown = shown.unwrap_or(&self.explained.path);
            let named = format!("`{}`", shown.display());
            let mut refused = self.config.refused.iter();
            let then = match (
                refused.find(|it| it.0.contains(&named)),
                glob.routine(shown),
            ) {
                (Some((what, _)), _) => format!("but {}", escape(what)),
                (None, Ok(routine)) => format!("and would be the routine {}", routine.name),
                (None, Err(error)) => format!("but {error}"),
            };
            format!("it fits `{text}` ({config}:{line}), {then}")
        });
        fit.collect::<Vec<_>>().join("; ")
    }

    fn why_not(&self, kept: Option<&Rule>) -> String {
        if self.explained.routines.is_empty() {
            return "it lies in no routine's directory".into();
        }
        match kept {
            Some(rule) => {
                let rule = self.rule(rule);
                format!("it is no entry; {rule} keeps it from being ignored")
            }
            None => "it is no entry and no rule names it".into(),
        }
    }

    /// A rule and where it stands.
    fn rule(&self, rule: &Rule) -> String {
        let pattern = escape(&rule.pattern);
        let names = if rule.names == self.explained.path {
            String::new()
        } else {
            format!(" for its directory {}", self.shown(&rule.names))
        };
        let stands = match &rule.origin {
            Origin::BuiltIn => "(built in)".into(),
            Origin::File { path, line } => format!("in {}:{line}", self.shown(path)),
            Origin::Config { line } => format!("in {}:{line}", self.shown(&self.config.file)),
        };
        format!("`{pattern}` {stands}{names}")
    }

    /// A path as seen from the working directory, where it lies below it.
    fn shown(&self, path: &Path) -> String {
        match path.strip_prefix(self.here) {
            Ok(below) if below.as_os_str().is_empty() => ".".into(),
            Ok(below) => escape(&below.to_string_lossy()),
            Err(_) => escape(&path.to_string_lossy()),
        }
    }

    fn object(&self) -> serde_json::Value {
        let explained = self.explained;
        let none: &[RoutineName] = &[];
        let (verdict, rule, target_of) = match &explained.verdict {
            Verdict::Entry { despite, .. } => ("entry", despite.as_ref(), none),
            Verdict::Target(routines) => ("target", None, routines.as_slice()),
            _ if !explained.inputs.is_empty() => ("input", None, none),
            Verdict::Ignored(rule) => ("ignored", Some(rule), none),
            Verdict::Other { kept } => ("other", kept.as_ref(), none),
        };
        let entry = |(routine, code): &Entry<'_>| {
            json!({
                "routine": routine.name,
                "file": self.config.file.to_string_lossy(),
                "line": routine.line,
                "ready": code.is_ok(),
                "bytes": code.as_ref().ok(),
                "problem": code.as_ref().err(),
            })
        };
        let input = |(build, pattern): &(usize, Pattern)| {
            json!({
                "build": self.config.builds().get(*build).map(|made| &made.build.command),
                "pattern": pattern.text,
                "file": self.config.file.to_string_lossy(),
                "line": pattern.line,
            })
        };
        let fit = |&glob: &usize| {
            let pattern = &self.config.globs.get(glob)?.pattern;
            Some(input(&(glob, pattern.clone())))
        };
        let leads_to =
            |real: &Real| json!({ "path": real.path.to_string_lossy(), "kind": real.kind });
        json!({
            "v": 1,
            "path": self.given.to_string_lossy(),
            "absolute": explained.path.to_string_lossy(),
            "exists": explained.kind.is_some(),
            "kind": explained.kind,
            "leads_to": explained.real.as_ref().map(leads_to),
            "verdict": verdict,
            "reason": self.reason(),
            "rule": rule.map(|rule| self.rule_object(rule)),
            "entries": self.entries.iter().map(entry).collect::<Vec<_>>(),
            "target_of": target_of,
            "made_by": self.makers().iter().map(|(build, _)| &build.command).collect::<Vec<_>>(),
            "inputs": explained.inputs.iter().map(input).collect::<Vec<_>>(),
            "fits": explained.fits.iter().filter_map(fit).collect::<Vec<_>>(),
            "routines": explained.routines,
            "backend": self.backend.0,
            "backend_why": self.backend.1,
        })
    }

    fn rule_object(&self, rule: &Rule) -> serde_json::Value {
        let (origin, place) = match &rule.origin {
            Origin::BuiltIn => ("built-in", None),
            Origin::File { path, line } => ("file", Some((path, line))),
            Origin::Config { line } => ("config", Some((&self.config.file, line))),
        };
        json!({
            "pattern": rule.pattern,
            "origin": origin,
            "file": place.map(|(file, _)| file.to_string_lossy()),
            "line": place.map(|(_, line)| line),
            "matches": rule.names.to_string_lossy(),
        })
    }
}

fn list(routines: &[RoutineName]) -> String {
    let names: Vec<&str> = routines.iter().map(RoutineName::as_str).collect();
    names.join(", ")
}
