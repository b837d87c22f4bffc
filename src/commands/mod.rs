//! One file a subcommand, thin, and what several of them need: opening a context, deploying one edit, turning
//! errors into words for people, and signals.

use std::fmt;
use std::path::PathBuf;

use crate::cli::{Cli, Command, Common, Config};
use crate::config::ConfigError;
use crate::report::class::Class;
use crate::report::{Journal, Report};

mod arrivals;
mod commit;
mod completions;
mod condition;
mod config;
mod context;
mod daemons;
mod deploy;
mod diff;
mod doctor;
mod emulator;
mod explain;
mod init;
mod key;
mod one;
mod pin;
mod problem;
mod prune;
mod publish;
mod purge;
mod push;
mod restore;
mod revisions;
mod signals;
mod status;
mod sync;
mod terminal;
mod watch;

/// Why a command could not do its work at all. What goes wrong with a single edit is an event and no failure.
///
/// Shown, the class stands in brackets behind the first line.
#[derive(Debug)]
pub struct Failure {
    /// What kind of thing went wrong; the exit code follows from it.
    pub class: Class,
    /// What and why, and in a last line behind `= help:` what to do.
    pub text: String,
    /// What else went wrong, where a command worked on several routines.
    pub others: Vec<Self>,
}

impl Failure {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        self.class.exit_code()
    }

    /// What happened, and what to do.
    fn halves(&self) -> (&str, &str) {
        self.text
            .split_once("\n= help: ")
            .unwrap_or((&self.text, ""))
    }

    fn new(class: Class, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
            others: Vec::new(),
        }
    }

    /// Wrong words on the command line that only the configuration can tell are wrong.
    fn usage(text: impl Into<String>) -> Self {
        Self::new(Class::Usage, text)
    }

    /// An error of another room, which says what to do behind its semicolon, if it does; else `help` is what to do.
    fn of_error(class: Class, error: impl fmt::Display, help: &str) -> Self {
        let error = error.to_string();
        let (what, help) = error.split_once("; ").unwrap_or((&error, help));
        Self::new(class, format!("{what}\n= help: {help}"))
    }

    /// Something that er-dev has no words of its own for: a bug, or something about the machine.
    pub fn other(error: impl fmt::Display) -> Self {
        let help = "do it again, which does no harm; with `--log debug` er-dev says what it does meanwhile";
        Self::of_error(Class::Machine, error, help)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, rest) = match self.text.split_once('\n') {
            Some((first, rest)) => (first, Some(rest)),
            None => (self.text.as_str(), None),
        };
        write!(f, "{first} [{}]", self.class)?;
        if let Some(rest) = rest {
            write!(f, "\n{rest}")?;
        }
        for other in &self.others {
            write!(f, "\nerror: {other}")?;
        }
        Ok(())
    }
}

/// Runs a command to its end and returns the exit code.
///
/// # Errors
///
/// [`Failure`] if the command could not do its work at all.
pub async fn run(cli: Cli) -> Result<u8, Failure> {
    let Cli { command, common } = cli;
    let mut report = Report::stdout(common.format, common.color);
    if Journal::reads_standard_error()
        && let Ok(journal) = Journal::at(&common.journal_socket)
    {
        report.tell_journal(journal);
    }
    match command {
        Command::Watch(flags) => watch::run(&common, flags, &mut report).await,
        Command::Push(flags) => push::run(&common, flags, &mut report).await,
        Command::Revisions(flags) => revisions::run(&common, flags, &mut report).await,
        Command::Status(flags) => status::run(&common, &flags, &mut report).await,
        Command::Sync(flags) => sync::run(&common, &flags, &mut report).await,
        Command::Explain(flags) => explain::run(&common, flags, &mut report).await,
        Command::Publish(flags) => publish::publish(&common, flags, &mut report).await,
        Command::Commit(flags) => commit::run(&common, flags, &mut report).await,
        Command::Rollback(flags) => publish::rollback(&common, flags, &mut report).await,
        Command::Prune(flags) => prune::run(&common, flags, &mut report).await,
        Command::Pin(flags) => pin::pin(&common, flags, &mut report).await,
        Command::Unpin(flags) => pin::unpin(&common, flags, &mut report).await,
        Command::Restore(flags) => restore::run(&common, flags, &mut report).await,
        Command::Diff(flags) => diff::run(&common, flags, &mut report).await,
        Command::Purge(flags) => purge::run(&common, &flags, &mut report),
        Command::Emulator(flags) => emulator::run(flags, &mut report).await,
        Command::Config(Config::Check) => config::check(&common, &mut report),
        Command::Init(flags) => init::run(&common, &flags, &mut report),
        Command::Completions(flags) => completions::completions(&flags, &mut report),
        Command::Man(flags) => completions::man(&flags, &mut report),
        Command::Names(flags) => completions::names(&common, &flags, &mut report),
        Command::Config(Config::Show(flags)) => config::show(&common, &flags, &mut report).await,
        Command::Doctor(flags) => doctor::run(&common, &flags, &mut report).await,
    }
}

/// An environment variable, if it is set and is text.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Finds and reads the configuration, and looks which files fit its patterns.
fn load(common: &Common) -> Result<crate::config::Config, Failure> {
    let invalid = |error: ConfigError| match error {
        ConfigError::Invalid(invalid) => Failure::new(Class::Config, invalid.to_string()),
        error => Failure::of_error(Class::Config, error, "see that it can be read"),
    };
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let file = crate::config::find(common.config.as_deref(), &here).map_err(invalid)?;
    let mut config = crate::config::load(&file, &common.allow_endpoint).map_err(invalid)?;
    crate::watch::globs::expand(&mut config)
        .map_err(|error| Failure::new(Class::Config, error.to_string()))?;
    Ok(config)
}
