//! The er-dev program: reads the command line, sets up logging, runs the command, and turns its end into an exit code.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use er_dev::cli::Cli;
use er_dev::report::log::LogForm;
use er_dev::report::{Journal, journal};
use er_dev::{commands, process, secrets};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    process::confine();
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => return wrong_use(&error),
    };
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        // A log on a full disk is no reason to panic: there is nowhere else to say so.
        .log_internal_errors(false)
        .event_format(LogForm::new(Journal::reads_standard_error()))
        .with_writer(|| process::Log)
        .with_env_filter(EnvFilter::new(&cli.common.log))
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = format!("the runtime cannot be started: {error}");
            return fail(&commands::Failure::other(error));
        }
    };
    let ended = runtime.block_on(commands::run(cli));
    // A blocking read that hangs must not keep the program from ending.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail(&failure),
    }
}

/// Shows the help that was asked for, or says what is wrong with the command line.
fn wrong_use(error: &clap::Error) -> ExitCode {
    let Some(text) = er_dev::cli::refusal(error) else {
        // A closed pipe keeps nobody from having asked.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    };
    say(&text);
    ExitCode::from(2)
}

fn fail(failure: &commands::Failure) -> ExitCode {
    say(&secrets::scrub(&failure.to_string()));
    ExitCode::from(failure.exit_code())
}

/// Says on standard error why the program ends. Where that is closed, only the code is left to say it.
fn say(text: &str) {
    let mut text = format!("error: {text}\n");
    if Journal::reads_standard_error() {
        text = journal::prefixed(3, &text);
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}
