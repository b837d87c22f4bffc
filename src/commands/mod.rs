//! One file a subcommand, thin, and what several of them need: opening a context, deploying one edit, turning
//! errors into words for people, and signals.

use std::path::PathBuf;

use crate::cli::{Cli, Command, Common, Config};
use crate::report::class::Class;
use crate::report::{Journal, Report};

mod condition;
mod config;
mod context;
mod daemons;
mod deploy;
mod diff;
mod emulator;
mod explain;
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
#[derive(Debug)]
pub struct Failure {
    /// What kind of thing went wrong; the exit code follows from it.
    pub class: Option<Class>,
    /// What, why, and what to do, on one line or several.
    pub text: String,
}

impl Failure {
    /// The exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        self.class.map_or(1, Class::exit_code)
    }

    fn new(class: Class, text: impl Into<String>) -> Self {
        Self {
            class: Some(class),
            text: text.into(),
        }
    }

    /// Wrong words on the command line that only the configuration can tell are wrong.
    fn usage(text: impl Into<String>) -> Self {
        Self {
            class: Some(Class::Usage),
            text: text.into(),
        }
    }

    /// A bug, or something about the machine that has no class.
    fn other(error: impl std::fmt::Display) -> Self {
        Self {
            class: None,
            text: error.to_string(),
        }
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
        Command::Explain(flags) => explain::run(&common, flags, &mut report),
        Command::Publish(flags) => publish::publish(&common, flags, &mut report).await,
        Command::Rollback(flags) => publish::rollback(&common, flags, &mut report).await,
        Command::Prune(flags) => prune::run(&common, flags, &mut report).await,
        Command::Pin(flags) => pin::pin(&common, flags, &mut report).await,
        Command::Unpin(flags) => pin::unpin(&common, flags, &mut report).await,
        Command::Restore(flags) => restore::run(&common, flags, &mut report).await,
        Command::Diff(flags) => diff::run(&common, flags, &mut report).await,
        Command::Purge(flags) => purge::run(&common, &flags, &mut report),
        Command::Emulator(flags) => emulator::run(flags, &mut report).await,
        Command::Config(Config::Check) => config::check(&common, &mut report),
    }
}

/// An environment variable, if it is set and is text.
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Finds and reads the configuration.
fn load(common: &Common) -> Result<crate::config::Config, Failure> {
    let invalid =
        |error: crate::config::ConfigError| Failure::new(Class::Config, error.to_string());
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let file = crate::config::find(common.config.as_deref(), &here).map_err(invalid)?;
    crate::config::load(&file, &common.allow_endpoint).map_err(invalid)
}
